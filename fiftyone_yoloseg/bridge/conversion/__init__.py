"""The parts of a conversion: rows and their scores, images, the manifest of what was written, the report. `bridge.convert` puts them together."""
