"""The CA component: issue, revoke, answer OCSP, publish CRLs.

The V2G root operator, each vehicle maker and each mobility operator mount it over
tables of their own; which authorities it holds is the trust model's word.
"""
