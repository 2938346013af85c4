"""AMD SEV-SNP: reports of the security processor, and the certificates that endorse its keys."""
