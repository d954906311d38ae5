"""The doors that every party has, one file each; `..app` lists them."""
