"""Pure functions on boxes, masks, polygons and letterboxes."""
