"""YOLOv8-seg in plain torch: blocks, head, network, assignment, losses."""
