"""What a compiled step costs, beside Optax: its memory traffic and compile time, and its time on this machine."""
