CANARY = {}
