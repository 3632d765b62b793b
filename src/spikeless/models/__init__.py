"""Model families, one file each: the parts that make one up, its roles and its Hugging Face key map."""
