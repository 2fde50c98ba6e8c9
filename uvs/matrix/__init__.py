"""Facts of the Matrix specification, without any input or output."""
