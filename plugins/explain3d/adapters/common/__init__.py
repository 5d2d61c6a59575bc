"""What the adapters share: nothing here imports a host toolbox."""
