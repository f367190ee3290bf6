"""TOUR"""
