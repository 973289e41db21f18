"""Reads the places that are examined. Nothing here raises for a problem of a place: that is evidence."""
