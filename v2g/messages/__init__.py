"""The message tables, one module or package per schema: sap, iso2, xmldsig."""
