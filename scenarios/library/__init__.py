"""The scenarios, by what they are about; each module declares some (see :mod:`..scenario`)."""
