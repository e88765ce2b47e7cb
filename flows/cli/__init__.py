"""The command line `pngnoise`, one module per group of commands."""
