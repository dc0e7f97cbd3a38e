"""room chapters"""
