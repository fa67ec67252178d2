"""Where files are measured: this machine, boards by ssh, phones by adb."""
