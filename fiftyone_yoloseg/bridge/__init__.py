"""FiftyOne and us: the only layer that knows both. Import its modules one by one; this package itself imports nothing."""
