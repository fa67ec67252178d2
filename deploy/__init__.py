"""Export, verification, runtimes, devices and profiling."""
