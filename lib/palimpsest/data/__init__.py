"""room data"""
