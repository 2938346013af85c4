"""AWS Nitro Enclaves: attestation documents of the Nitro security module."""
