"""Reference of the configuration, generated from the pydantic models of flow parameters and YAML files."""
