"""What a program will take: cycles and events of an engine, a tile and the accelerator."""
