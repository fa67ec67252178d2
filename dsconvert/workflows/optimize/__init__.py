"""From a trained model to the file to use, stage by stage, in one folder."""
