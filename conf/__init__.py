"""The YAML files of every command, composed by Hydra; installed as `video_mvit.conf`."""
