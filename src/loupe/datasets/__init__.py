"""Where images come from: bundled, downloaded or one's own photographs, and rendered product shots."""
