"""The V2G root operator: the root CA, and sub-CAs for operators and provisioning services."""
