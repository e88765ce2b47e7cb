"""The reference of configuration: what the pydantic models say of their keys, as pages of Markdown."""
