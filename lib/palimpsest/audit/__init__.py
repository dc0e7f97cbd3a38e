"""room audit"""
