"""What comes out: export, verification, runtimes, profiling."""
