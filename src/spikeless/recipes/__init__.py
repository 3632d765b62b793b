"""Recipes: functions that return a whole run, one file each. The folder is the registry."""
