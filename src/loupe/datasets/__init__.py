"""Where images come from: the photographs bundled with installed packages, and rendered product shots."""
