"""What a certificate is and who may vouch for whom.

Sans-I/O: values and bytes in, values and verdicts out. No clock, no file, no socket.
"""
