"""One job from request to receipt, composed of the rooms below."""
