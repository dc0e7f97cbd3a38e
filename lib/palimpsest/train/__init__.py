"""room train"""
