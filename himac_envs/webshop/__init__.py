"""WebShop: the shop, its search engine, goals and reward, in Python and NumPy.

`himac_envs.webshop.env.WebShopEnv` is the environment, `himac_envs.webshop.catalogue` compiles
product files, `himac_envs.webshop.site` serves the shop to people and browsers. Importing this
package loads none of them.
"""
