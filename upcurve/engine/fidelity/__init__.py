"""How far what is served lies from the same model in float32, one operation at a time."""
