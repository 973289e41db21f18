"""What a broker's queues hold and what its workers say of themselves, asked on an interval."""
