"""Energy, latency and area: of a program on the engine, and as published."""
