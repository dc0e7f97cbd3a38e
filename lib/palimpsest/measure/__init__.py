"""room measure"""
