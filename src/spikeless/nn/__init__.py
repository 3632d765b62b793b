"""Parts without policy. Each file holds a part's frozen description and the module that it builds."""
