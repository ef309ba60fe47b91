"""Code that travels with a checkpoint, as Molmo's and FastVLM's does: small models of our own behind the interfaces of
the published ones. The files are copied into the checkpoint and loaded from there, never imported from here."""
