"""What drives the parties: scenarios, the demonstration, the command line."""
