"""What events and readings of a GPU mean: XIDs, vitals, probes, and the record of each GPU."""
