"""What a training costs before it is paid for: operations, memory, hours."""
