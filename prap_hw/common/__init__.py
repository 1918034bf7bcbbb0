"""What all components share: layouts, memories with parity, crossbar port, member lists."""
