"""Host-independent parts: structures, targets, factorisation, upsampling, geometry, results."""
