"""What a run is made of: alone in its workspace, its processes, its stops, its retries, what it shows."""
