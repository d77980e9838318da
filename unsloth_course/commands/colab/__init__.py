"""The command `colab`: notebooks for upload, and the address that badges and install cells name."""
