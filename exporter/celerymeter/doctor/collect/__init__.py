"""Looking: one module a place. None raises for what is wrong with the place; that is evidence."""
