"""Intel SGX and TDX: DCAP quotes, the certificates in them, and Intel's word on how current a platform is."""
