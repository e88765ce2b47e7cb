"""The tables of the PNG paper, made again on the data that is there."""
