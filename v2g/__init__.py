"""What crosses the cable: EXI, messages, signatures, framing. Sans-I/O."""
